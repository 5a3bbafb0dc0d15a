"""Saddle points of linear networks: the free energy in the Gram factor of the noise, minimised to rounding error."""
