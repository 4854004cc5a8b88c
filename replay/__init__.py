"""`driftline replay`: a recorded stream through the real pipeline, in lock step, and measured (DESIGN §6).

source → driver (topics, scorer, ingest, learner, watcher: the live components) → rivals → report → findings, page.
"""
