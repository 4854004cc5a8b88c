"""The adapter's file format: signed manifests, the probe, tensor files, and the PEFT folder for the outside world.

`manifest`, `parts`, `recipe` and `probe` need no torch; `weights` and `exchange` do. What travels between learner,
registry and replicas is always a version's parts, as blobs, and one signed manifest that names them by sha256.
"""
