"""The REST service around a control plane: OpenWhisk's routes as real clients speak them, extended
by applications and sessions.

Covered: namespaces, applications and plain actions (put, get, list, invoke, delete), activations
(list, get, logs, result, cancel), sessions. Not covered yet: packages, triggers, rules, web
actions, sequences.
"""

from openwhisk.http.service import create_app

__all__ = ["create_app"]
