"""The only place that builds objects out of a config, runs processes and supervises them.

existing (opened to look at) · wiring (build) · label_changes · run (processes) · supervisor · signals · logs, bridge
"""
