"""The fast clock: labels → pulses, within seconds, also while an update trains. No torch."""
