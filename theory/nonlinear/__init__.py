"""Saddle points of networks with any activation: averages over the law q of one neuron, on grids or on points."""
