"""How and where a cell is trained: this process, worker processes, a cluster."""
