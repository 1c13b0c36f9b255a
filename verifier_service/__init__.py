"""The verifier service: a thin door around `nacre.runtime.verifier_host` and the engine."""
