"""What a potential is worth: errors, curve, elastic constants, beside the reference."""

#: of the energy-volume curve: fewer give no equation of state, which has four parameters
FEWEST_POINTS = 5
