"""The bundle (.elstm file): contract, network, golden vectors, certificate, signature."""
