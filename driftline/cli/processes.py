"""One verb per process: `ingest`, `learn`, `adapt`, `serve`, `score`; and `stop` for the embedded Redis.

Each runs until SIGTERM or SIGINT, then finishes what it has in hand and exits 0.
"""

from typing import Annotated, Any

import typer
from pydantic import ValidationError

from driftline.assembly.logs import configure_logging
from driftline.assembly.running import recorded
from driftline.assembly.supervisor import supervised
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption
from driftline.cli.output import say
from driftline.config import Config, ServeConfig, load_config
from driftline.config_mistakes import explain
from driftline.errors import ConfigError, DriftlineError
from driftline.names import StateFiles

Port = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Instead of serve.port.")]
AdminPort = Annotated[int | None, typer.Option("--admin-port", min=0, max=65535, help="Instead of serve.admin_port.")]
Replica = Annotated[str | None, typer.Option("--replica", metavar="NAME", help="Instead of serve.replica.")]


def ingest(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Read the topics into the buffer: clean, join with labels, dead-letter what cannot be used."""
    configure_logging(process="ingest")
    from driftline.assembly.run import run_ingest

    loaded = load_config(config)
    with recorded("ingest", config, loaded):
        run_ingest(loaded)


def learn(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Learn from the buffer on schedule: update, evaluate, decide, publish."""
    configure_logging(process="learn")
    from driftline.assembly.run import run_learner

    loaded = load_config(config)
    with recorded("learn", config, loaded):
        run_learner(loaded)


def adapt(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Learn from each label within seconds: the fast clock of every feed that has one (`[feed.NAME.fast]`)."""
    configure_logging(process="adapt")
    from driftline.assembly.run import run_adapt

    loaded = load_config(config)
    with recorded("adapt", config, loaded):
        run_adapt(loaded)


def serve(
    config: ConfigOption = DEFAULT_CONFIG, port: Port = None, admin_port: AdminPort = None, replica: Replica = None
) -> None:
    """Answer over HTTP with the live version, and take up new versions without dropping a request."""
    configure_logging(process="serve")
    from driftline.assembly.run import run_serve

    loaded = load_config(config)
    with recorded("serve", config, loaded):
        run_serve(with_serve_options(loaded, port=port, admin_port=admin_port, replica=replica))


def score(config: ConfigOption = DEFAULT_CONFIG, replica: Replica = None) -> None:
    """Answer every event of the events topics on the predictions topics."""
    configure_logging(process="score")
    from driftline.assembly.run import run_scorer

    loaded = load_config(config)
    with recorded("score", config, loaded):
        run_scorer(with_serve_options(loaded, replica=replica))


def stop(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Stop the embedded Redis of this state folder."""
    loaded = load_config(config)
    if loaded.redis.url != "embedded":
        say("nothing to stop: the config names a Redis server of its own (redis.url)")
        return
    from driftline.registry.embedded import stop_embedded

    files = StateFiles(loaded.state.path)
    if supervised(files.supervisor):
        raise DriftlineError("`driftline up` runs here and would start it again: end that one (Ctrl-C), which stops it")
    say("embedded Redis stopped" if stop_embedded(files) else "no embedded Redis was running")


def with_serve_options(config: Config, **options: Any) -> Config:
    """The config with the serve section's port, admin_port, replica replaced where an option was given; ConfigError."""
    given = {key: value for key, value in options.items() if value is not None}
    try:
        serve = ServeConfig.model_validate(config.serve.model_dump() | given)
    except ValidationError as error:
        raise ConfigError("\n".join(f"serve.{line}" for line in explain(error, ServeConfig, {}))) from None
    return config.model_copy(update={"serve": serve})
