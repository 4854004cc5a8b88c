"""`driftline history`: every version with the gate's decision, and the audit of what was live."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from driftline.assembly.existing import existing_registry
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feed
from driftline.cli.output import print_json, print_table, say, to_type
from driftline.config import load_config
from driftline.phrases import percent
from driftline.reasons import decision_in_words
from driftline.records import AuditEntry, LiveRecord, Manifest

if TYPE_CHECKING:
    from driftline.registry import Registry

LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the newest N versions, and the last N changes.")
]
MOMENT = "%Y-%m-%d %H:%M:%S"


def history(
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """All versions with their decisions and reasons, then who changed what was live, when and why."""
    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    registry = existing_registry(loaded)
    live = registry.live(name) if registry else LiveRecord(feed=name)
    manifests = read_manifests(registry, name, limit) if registry else []
    audit = registry.audit(name) if registry else []
    gone, shown = withdrawn(audit), audit if limit is None else audit[-limit:]
    if as_json:
        rows = [_row(manifest, live, gone) for manifest in manifests]
        print_json({"feed": name, "live": live, "versions": rows, "audit": shown})
    else:
        _show(live, manifests, shown, gone)


def read_manifests(registry: "Registry", feed: str, limit: int | None) -> list[Manifest]:
    """The newest `limit` versions' manifests (None: all), by version. Signatures are not checked: nothing is served."""
    from driftline.artefact.manifest import decode_manifest

    versions = registry.versions(feed)
    newest = versions if limit is None else versions[-limit:]
    return [decode_manifest(registry.manifest(feed, version).document) for version in newest]


def withdrawn(audit: Sequence[AuditEntry]) -> set[int]:
    """Versions that a rollback took back and nobody promoted since. A rollback to 3 takes back what came after 3."""
    stack, gone = [0], set[int]()
    for entry in audit:
        if entry.action == "promoted":
            stack.append(entry.version)
            gone.discard(entry.version)
        elif entry.action == "rolled_back":
            keep = stack.index(entry.version) + 1 if entry.version in stack else len(stack) - 1
            gone.update(stack[keep:])
            stack = stack[:keep] if entry.version in stack else [*stack[:keep], entry.version]
    return gone - {0, *stack}


def _row(manifest: Manifest, live: LiveRecord, gone: set[int]) -> dict[str, Any]:
    return {
        "version": manifest.version,
        "parent": manifest.parent,
        "created_at": manifest.created_at,
        "examples": manifest.fresh_examples + manifest.replayed_examples,
        "fresh_examples": manifest.fresh_examples,
        "replayed_examples": manifest.replayed_examples,
        "decision": _verdict(manifest),
        "reasons": manifest.decision.reasons,
        "in_words": decision_in_words(manifest.decision),
        "evaluation": manifest.evaluation,
        "cycle_id": manifest.cycle_id,
        "imported_from": manifest.imported_from,
        "parts": manifest.parts,
        "live": manifest.version == live.version,
        "anchor": manifest.version == live.anchor,
        "withdrawn": manifest.version in gone,
    }


def _verdict(manifest: Manifest) -> str:
    return "promoted" if manifest.decision.promote else "rejected"


def _show(live: LiveRecord, manifests: list[Manifest], audit: list[AuditEntry], gone: set[int]) -> None:
    if not manifests and not audit:
        say(f"{escape(live.feed)} has no version yet; see `{escape(to_type('status'))}` for what is awaited")
        return
    base = [("→ 0", None, None, None, None, None, "the base without adapter, live")] if live.version == 0 else []
    rows = [*base, *(_cells(manifest, live, gone) for manifest in manifests)]
    print_table(
        (">version", ">parent", "created (UTC)", ">examples + replay", ">accuracy", ">macro-F1", "decision"), rows
    )
    say("")
    changes = [
        (entry.at.strftime(MOMENT), entry.action.replace("_", " "), _from_to(entry), entry.actor, entry.reason)
        for entry in audit
    ]
    print_table(("changed (UTC)", "what", ">version", "who", "why"), changes)


def _cells(manifest: Manifest, live: LiveRecord, gone: set[int]) -> tuple[object, ...]:
    words = decision_in_words(manifest.decision)
    pooled = manifest.evaluation.get("pooled")
    return (
        f"{'→ ' if manifest.version == live.version else ''}{manifest.version}",
        manifest.parent,
        manifest.created_at.strftime(MOMENT),
        f"{manifest.fresh_examples:,} + {manifest.replayed_examples:,}",
        percent(pooled.accuracy if pooled else None),
        percent(pooled.macro_f1 if pooled else None),
        f"withdrawn by a rollback; was {words}" if manifest.version in gone else words,
    )


def _from_to(entry: AuditEntry) -> str:
    return f"{entry.from_version} → {entry.version}" if entry.from_version != entry.version else str(entry.version)
