"""Command-line tools of the prototype: ``wskgen``, ``wskish``, ``rundisagg``, ``wskruntime``."""
