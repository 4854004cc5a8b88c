"""The adapter's file format: signed manifests, the probe, tensor files, and the PEFT folder for the outside world.

`manifest` and `probe` need no torch; `weights` and `exchange` do. What travels between learner, registry and replicas
is always three blobs (body, head, trainer state) and one signed manifest that names them by sha256.
"""
