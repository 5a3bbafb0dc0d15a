"""How saddle points are found: starts, roots of the stationarity equations, stability, branches."""
