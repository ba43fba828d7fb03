"""Train with NeMo: settings become NeMo objects, callbacks watch, runs resume."""
