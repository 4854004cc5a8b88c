"""The registry: adapters, the live record, the audit and leases, in Redis. No torch.

`connect` → `Registry` → `lease`; `start_embedded` where there is no Redis. The live record is the truth, the audit
stream that announces its changes is a hint.
"""

from driftline.registry.client import Client, connect
from driftline.registry.embedded import start_embedded, stop_embedded
from driftline.registry.lease import Lease
from driftline.registry.registry import Registry
from driftline.registry.replies import check_not_lost

__all__ = [
    "Client",
    "Lease",
    "Registry",
    "check_not_lost",
    "connect",
    "start_embedded",
    "stop_embedded",
]
