"""How the network is computed fast; the results are the formula's."""
