"""Windows over event time: how rows are assigned, when a window closes, who is late."""
