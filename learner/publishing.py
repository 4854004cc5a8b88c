"""Publishing a candidate: signed, under the lease's fence, and as rejected where somebody decided otherwise meanwhile.

Guards invariant 6 on the learner's side. Delivery: exactly one outcome per cycle id. Atomicity and idempotency: those
of `Registry.publish`; after RegistryUnavailable the whole turn is resumed, and a known cycle id is only acknowledged.
Errors: LeaseLost (another learner took over: nothing was written), RegistryUnavailable.
"""

from dataclasses import replace

from driftline.artefact.manifest import Signer
from driftline.clock import Clock
from driftline.records import GateDecision, GateReason, LiveRecord, Manifest, PublishOutcome
from driftline.registry import Lease, Registry

_REFUSALS = {"paused": "paused", "conflict": "incumbent_changed"}
"""The registry's answer to a promotion that somebody else's decision forestalled → the reason that is given for it."""


class Publisher:
    """One feed's way into the registry."""

    def __init__(self, registry: Registry, signer: Signer, lease: Lease, clock: Clock) -> None:
        self._registry = registry
        self._signer = signer
        self._lease = lease
        self._clock = clock

    def publish(self, manifest: Manifest) -> tuple[PublishOutcome, GateDecision]:
        """Publish as decided; where the live record changed or a pause came meanwhile, register it as rejected."""
        live = self._registry.live(manifest.feed)
        if not manifest.decision.promote:
            return self._send(manifest, live), manifest.decision
        refusal = _refusal(live, manifest)
        if refusal is None:
            outcome = self._send(manifest, live)
            refusal = _REFUSALS.get(outcome.status)
            if refusal is None:
                return outcome, manifest.decision
        refused = rejected(manifest, refusal)
        return self._send(refused, live), refused.decision

    def _send(self, manifest: Manifest, live: LiveRecord) -> PublishOutcome:
        return self._registry.publish(
            self._signer.sign(manifest), lease=self._lease, expected_revision=live.revision, at=self._clock.now()
        )


def _refusal(live: LiveRecord, manifest: Manifest) -> str | None:
    """Why a promotion would be wrong now; None if nothing speaks against it."""
    if live.version != manifest.parent:
        return "incumbent_changed"
    return "paused" if live.paused else None


def is_judged(decision: GateDecision) -> bool:
    """Whether a version was rejected for what it is: not where it was paused, or something else went live meanwhile."""
    return not any(reason.code in _REFUSALS.values() for reason in decision.reasons)


def rejected(manifest: Manifest, code: str) -> Manifest:
    """The same version with a rejecting decision: what the gate found, and the reason that came on top."""
    reasons = (*manifest.decision.reasons, GateReason(code=code, holds=False))
    return replace(manifest, decision=GateDecision(promote=False, reasons=reasons))
