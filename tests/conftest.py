"""For every test: no network."""

import tests.no_network.sitecustomize  # noqa: F401  imported for what it does
