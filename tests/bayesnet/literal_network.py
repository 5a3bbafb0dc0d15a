"""The model written down a second time, in NumPy: weights from the prior, the recurrence, the targets. The truth of the
calibration tests; nothing of the packages is used but the fields of `Network` and `Task`."""

import numpy as np

PHI = {"linear": lambda x: x, "tanh": np.tanh}


def _readout_scale(network):
    return network.width if network.scaling == "mup" else np.sqrt(network.width)


def _target_scale(network):
    return 1 / network.width if network.scaling == "mup" else 1.0


def degree_of(network, name):
    """How far weights are shared over the steps: a number, a correlation matrix, or a `theory.Drift`."""
    return network.shared.get(name, 0.0) if hasattr(network.shared, "get") else float(name in network.shared)


def over_steps(degree, steps, shape, rng):
    """Standard normal matrices for each step, (1 or steps, *shape), as correlated as a degree of sharing says."""
    if hasattr(degree, "tau"):
        distance = np.abs(np.arange(steps)[:, None] - np.arange(steps))
        root = np.linalg.cholesky(np.exp(-distance / degree.tau))
        return np.tensordot(root, rng.normal(size=(steps, *shape)), 1)
    if np.ndim(degree):
        return np.tensordot(np.linalg.cholesky(degree), rng.normal(size=(steps, *shape)), 1)
    if degree in (0, 1):
        return rng.normal(size=(1 if degree else steps, *shape))
    return np.sqrt(degree) * rng.normal(size=shape) + np.sqrt(1 - degree) * rng.normal(size=(steps, *shape))


def draw_prior(network, task, number, rng):
    """Independent prior draws: kernels (M, n, n), outputs f (M, T P, O), targets y (M, supervised, O); site by site."""
    width, steps, layers, phi = network.width, task.steps, network.layers, PHI[network.activation]

    def weights(name, rows, columns, deviation):
        return deviation * over_steps(degree_of(network, name), steps, (number, rows, columns), rng)

    def gain(name, layer):
        return np.broadcast_to(getattr(network, name), layers - (name == "feedforward_gain"))[layer]

    w = [weights("recurrent", width, width, gain("recurrent_gain", at) / np.sqrt(width)) for at in range(layers)]
    z = [
        weights("feedforward", width, width, gain("feedforward_gain", at) / np.sqrt(width)) for at in range(layers - 1)
    ]
    b = [weights("bias", 1, width, gain("bias_gain", at)) for at in range(layers)]
    u = weights("input", width, task.input_dim, network.input_gain / np.sqrt(task.input_dim))
    v = weights("readout", task.output_dim, width, network.readout_gain)
    fields, activities, outputs = {}, [], []
    for t in range(steps):
        for layer in range(layers):
            current = b[layer][t % len(b[layer])]
            if network.process_noise:
                current = current + network.process_noise * rng.normal(size=(number, task.patterns, width))
            if t >= network.delay:
                before = phi(fields[t - network.delay, layer])
                current = current + np.einsum("mpj,mij->mpi", before, w[layer][t % len(w[layer])])
            if layer:
                below = phi(fields[t, layer - 1])
                current = current + np.einsum("mpj,mij->mpi", below, z[layer - 1][t % len(z[layer - 1])])
            else:
                current = current + np.einsum("pd,mid->mpi", task.inputs[:, t], u[t % len(u)])
            field = network.leak * current + (1 - network.leak) * fields.get((t - 1, layer), 0.0)
            skipped = (t, layer - 1) if layers > 1 else (t - 1, 0)
            fields[t, layer] = field + network.residual * fields.get(skipped, 0.0)
            activities.append(phi(fields[t, layer]))
        outputs.append(np.einsum("mpj,moj->mpo", activities[-1], v[t % len(v)]) / _readout_scale(network))
    activity, f = np.concatenate(activities, axis=1), np.concatenate(outputs, axis=1)
    deviation = np.sqrt(network.noise * _target_scale(network))
    noise = deviation * rng.normal(size=(number, len(task.supervised_entries), task.output_dim))
    return activity @ activity.transpose(0, 2, 1) / width, f, f[:, task.supervised_entries] + noise


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
    degree = degree_of(network, "readout")
    mask = np.kron(degree, np.ones((task.patterns,) * 2)) if np.ndim(degree) else degree + (1 - degree) * same_step
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
