"""How chains move and are run: NUTS, split HMC and Langevin dynamics in compiled blocks, with checkpoints."""
