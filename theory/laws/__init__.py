"""The law of a neuron at given covariance C and conjugate kernel Phihat: Gaussian, on a grid, or by draws."""
