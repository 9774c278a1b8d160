"""``lacuna doctor``: can this machine, or a cluster, serve what the settings ask for? One file per kind of check."""
