"""What continual learning is worth on a real stream: Driftline with replay, without (naive), and the joint bound.

    python -m benchmarks.stream_quality [--limit N] [--seeds 1] [--out results.json]

Joint: one fresh adapter trained on all fresh examples of the run, shuffled, same settings, as many steps as the run
took (DESIGN §7). The gap is measured on a hold-out that is never fed, with a paired bootstrap interval.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.data import CONFIG, HOLDOUT, STREAM
from benchmarks.record import announce, write_result
from driftline.assembly.logs import configure_logging
from driftline.clock import SimulatedClock
from driftline.config import Config, FeedConfig, load_config
from driftline.tasks import task_named
from learner.cycle import cycle_seed
from learner.model import LoraModel
from learner.update import Lesson, run_update
from replay.driver import Driver, Pace
from replay.evaluation import bootstrap_gap
from replay.final_exam import final_answers
from replay.pipeline import Pipeline, open_pipeline, replay_config, state_folder
from replay.report import build_report
from replay.source import EPOCH, StreamItem, stream_items

ON_THE_WHOLE = ("majority", "last_label", "online_head", "frozen_mixture")
"""The baselines that answer every event."""


def with_learner(config: Config, feed: str, **changes: object) -> Config:
    """The config with some keys of the feed's learner section replaced."""
    section = config.feed[feed]
    changed = section.model_copy(update={"learner": section.learner.model_copy(update=changes)})
    return config.model_copy(update={"feed": {**config.feed, feed: changed}})


@contextmanager
def replayed(
    config: Config, feed: str, events: Path, test: Path | None, limit: int | None
) -> Iterator[tuple[Driver, dict[str, Any]]]:
    """A finished replay with its pipeline still open, and its report, with the exam on the test set if there is one."""
    start = time.perf_counter()
    with (
        state_folder(None) as folder,
        open_pipeline(replay_config(config, feed, folder), feed, SimulatedClock(EPOCH)) as pipeline,
    ):
        driver = Driver(pipeline, Pace(None))
        driver.run(stream_items([events], config.feed[feed], limit=limit))
        items = stream_items([test], config.feed[feed]) if test else []
        yield driver, build_report(driver, time.perf_counter() - start, items)


def holdout_items(section: FeedConfig) -> Iterator[StreamItem]:
    """The evaluation file's items."""
    return stream_items([HOLDOUT], section)


def joint_answers(pipeline: Pipeline) -> list[str | None]:
    """Answers on the hold-out of one adapter trained on the run's fresh examples, shuffled, with the run's steps."""
    import numpy as np

    section = pipeline.section
    fresh = sorted({seq for row in pipeline.buffer.ledger.cycles(pipeline.feed) for seq in row.cycle.plan.fresh})
    examples = pipeline.buffer.ledger.examples(pipeline.feed, fresh)
    tokens = pipeline.base.tokenize([example.text for example in examples])
    task = task_named(section.task)
    targets = task.targets([example.label for example in examples], section.labels)
    lessons = [Lesson(tokens=ids, target=target) for ids, target in zip(tokens, targets, strict=True)]
    wanted = trained_examples(pipeline)
    generator = np.random.default_rng(section.learner.seed)
    order = [int(i) for _ in range(-(-wanted // len(lessons))) for i in generator.permutation(len(lessons))][:wanted]
    model = LoraModel(pipeline.base, task, section.labels, section.learner)
    run_update(
        model, None, [lessons[i] for i in order], [], section.learner, cycle_seed(section.learner.seed, "joint", 1)
    )
    events = [pipeline.decode(item) for item in holdout_items(section) if item.label in section.labels]
    outputs = model.predict([event.text for event in events if event is not None])  # (N, R)
    return task.answers(outputs, section.labels)


def trained_examples(pipeline: Pipeline) -> int:
    """Examples trained along the live version's lineage, replay included: with equal batches, as many steps."""
    lineage = set(pipeline.buffer.ledger.lineage(pipeline.feed, pipeline.registry.live(pipeline.feed).version))
    plans = [row.cycle.plan for row in pipeline.buffer.ledger.cycles(pipeline.feed) if row.cycle.version in lineage]
    return sum(len(plan.fresh) + len(plan.replayed) for plan in plans)


def measure(config: Config, limit: int | None) -> dict[str, Any]:
    """One seed: replay, the gap to joint, and the same stream without replay."""
    feed = next(iter(config.feed))
    with replayed(config, feed, STREAM, HOLDOUT, limit) as (driver, report):
        rows = final_answers(driver.pipeline, driver.rivals, holdout_items(driver.pipeline.section))
        start = time.perf_counter()
        joint = joint_answers(driver.pipeline)
        joint_seconds = time.perf_counter() - start
    ours = [row.ours == row.label for row in rows]
    bound = [answer == row.label for answer, row in zip(joint, rows, strict=True)]
    gap = bootstrap_gap(bound, ours)
    with replayed(with_learner(config, feed, strategy="naive"), feed, STREAM, HOLDOUT, limit) as (_, naive):
        pass
    return {
        "er": report,
        "naive": naive,
        "joint": {
            "accuracy": sum(bound) / len(bound),
            "seconds": joint_seconds,
            "gap_points": 100 * gap.gap,
            "gap_points_95": [100 * gap.low, 100 * gap.high],
        },
    }


def summary(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The figures as rows of a table."""
    report, naive, joint = result["er"], result["naive"], result["joint"]
    baselines = report["baselines"]
    first = baselines["first_version"]
    rows = [
        ("promoted versions", str(sum(row["decision"] == "promoted" for row in report["versions"]))),
        ("failed requests", str(report["swaps"]["requests_failed"])),
        ("prequential accuracy", f"{report['prequential']['accuracy']:.4f}"),
        *((f"  {name}", f"{baselines[name]['accuracy']:.4f}") for name in ON_THE_WHOLE),
        ("  first version, frozen", f"{first['accuracy'] or 0:.4f}"),
        *((f"  without {name}", f"{row['without'] or 0:.4f}") for name, row in report["experts"].items()),
        ("  naive (no replay)", f"{naive['prequential']['accuracy']:.4f}"),
        ("hold-out at the end", f"{report['evaluation']['all']['accuracy']:.4f}"),
        ("  naive", f"{naive['evaluation']['all']['accuracy']:.4f}"),
        ("  joint", f"{joint['accuracy']:.4f}"),
        ("gap to joint, points [95 %]", f"{joint['gap_points']:.2f} {[round(x, 2) for x in joint['gap_points_95']]}"),
        ("forgetting er / naive, points", f"{points(report)} / {points(naive)}"),
        ("examples trained per second", f"{report['examples_per_s'] or 0:.1f}"),
        ("total seconds", f"{report['seconds']['total']:.0f}"),
    ]
    return rows


def points(report: dict[str, Any]) -> str:
    """Forgetting in points, or a dash."""
    forgetting = report["retention"]["forgetting"]
    return "–" if forgetting is None else f"{100 * forgetting:.1f}"


def main() -> None:
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first N events")
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("SEEDS", "1")))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/stream_quality.json"))
    options = parser.parse_args()
    config = load_config(CONFIG)
    feed = next(iter(config.feed))
    results = []
    for seed in range(options.seeds):
        results.append(measure(with_learner(config, feed, seed=seed), options.limit))
        announce(f"sentiment_shift, seed {seed}", summary(results[-1]))
    write_result(options.out, {"benchmark": "stream_quality", "limit": options.limit, "seeds": results})


if __name__ == "__main__":
    main()
