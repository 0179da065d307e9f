"""V_den, an op in a folder: a float64 reference, the weights of the neighbourhood, and the jitted form."""
