"""`edge-lstm doctor` and its checks, and `edge-lstm bench`; a check changes nothing."""
