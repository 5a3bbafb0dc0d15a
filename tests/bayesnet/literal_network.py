"""The model written down a second time, in NumPy: weights from the prior, the recurrence, the targets. The truth of the
calibration tests; nothing of the packages is used but the fields of `Network` and `Task`."""

import numpy as np

PHI = {"linear": lambda x: x, "tanh": np.tanh}


def _readout_scale(network):
    return network.width if network.scaling == "mup" else np.sqrt(network.width)


def _target_scale(network):
    return 1 / network.width if network.scaling == "mup" else 1.0


def draw_prior(network, task, number, rng):
    """Independent prior draws: kernels (M, n, n), outputs f (M, n, O), targets y (M, supervised, O); n time-major."""
    n, width, steps = task.entries, network.width, task.steps

    def weights(name, rows, columns, deviation):
        copies = 1 if name in network.shared else steps
        return deviation * rng.normal(size=(copies, number, rows, columns))

    w = weights("recurrent", width, width, network.recurrent_gain / np.sqrt(width))
    u = weights("input", width, task.input_dim, network.input_gain / np.sqrt(task.input_dim))
    v = weights("readout", task.output_dim, width, network.readout_gain)
    activity, outputs = [], []
    for t in range(steps):
        field = np.einsum("pd,mid->mpi", task.inputs[:, t], u[t % len(u)])
        if t:
            field = field + np.einsum("mpj,mij->mpi", activity[-1], w[t % len(w)])
        activity.append(PHI[network.activation](field))
        outputs.append(np.einsum("mpj,moj->mpo", activity[-1], v[t % len(v)]) / _readout_scale(network))
    phi, f = np.concatenate(activity, axis=1), np.concatenate(outputs, axis=1)
    deviation = np.sqrt(network.noise * _target_scale(network))
    noise = deviation * rng.normal(size=(number, len(task.supervised_entries), task.output_dim))
    return phi @ phi.transpose(0, 2, 1) / width, f.reshape(number, n, -1), f[:, task.supervised_entries] + noise


def run(network, task, weights):
    """Fields (T, P, N) and outputs (P, T, O) of a network with given weights, one pattern and one step at a time."""
    w, u, v = (np.asarray(part) for part in weights)
    fields = np.zeros((task.steps, task.patterns, network.width))
    outputs = np.zeros((task.patterns, task.steps, task.output_dim))
    for mu, t in np.ndindex(task.patterns, task.steps):
        fields[t, mu] = u[t % len(u)] @ task.inputs[mu, t]
        if t:
            fields[t, mu] += w[(t - 1) % len(w)] @ PHI[network.activation](fields[t - 1, mu])
        outputs[mu, t] = v[t % len(v)] @ PHI[network.activation](fields[t, mu]) / _readout_scale(network)
    return fields, outputs


def log_likelihood(network, task, kernel, targets):
    """ln p(y | Phi) with V integrated out, for kernels (..., n, n) and targets (..., supervised, O)."""
    same_step = np.kron(np.eye(task.steps), np.ones((task.patterns, task.patterns)))
    mask = np.ones_like(same_step) if "readout" in network.shared else same_step
    rows = task.supervised_entries
    readout = (network.readout_gain**2 * mask * kernel)[..., rows[:, None], rows]
    cov = (readout + network.noise * np.eye(len(rows))) * _target_scale(network)
    quadratic = np.einsum("...io,...io->...", targets, np.linalg.solve(cov, targets))
    log_det = np.linalg.slogdet(2 * np.pi * cov)[1]
    return -(quadratic + targets.shape[-1] * log_det) / 2


def quantities(network, task, kernel, output, targets):
    """What calibration looks at: label -> number for each draw. Kernels as logarithms and overlaps (both signed and
    squared), outputs, how large they are where unsupervised and how far from the targets elsewhere, and how likely the
    targets are: the last two depend on draw and data."""
    n = task.entries
    diagonal = np.einsum("...ii->...i", kernel)
    overlap = kernel / np.sqrt(diagonal[..., :, None] * diagonal[..., None, :])
    found = {f"log kernel {i}": np.log(diagonal[..., i]) for i in range(n)}
    for i, j in ((0, 1), (0, n - 1), (n - 2, n - 1)):
        found[f"overlap {i} {j}"] = overlap[..., i, j]
        found[f"squared overlap {i} {j}"] = overlap[..., i, j] ** 2
    for i in (0, n - 1):
        found[f"output {i}"] = output[..., i, 0]
    unsupervised = np.setdiff1d(np.arange(n), task.supervised_entries)
    error = targets - output[..., task.supervised_entries, :]
    found["size of outputs"] = np.log(np.sum(output[..., unsupervised, :] ** 2, axis=(-2, -1)))
    found["size of errors"] = np.log(np.sum(error**2, axis=(-2, -1)))
    found["log likelihood"] = log_likelihood(network, task, kernel, targets)
    return found
