"""The fail-mode table: each guard, what it depends on, and what happens when that breaks: deny, always.

`doctor` shows it; `tests/unit/pipeline/test_fail_modes.py` checks that every row's test exists, and each of these
tests breaks the dependency for real.
"""

from __future__ import annotations

from vestibule.core.model import FailMode

FAIL_MODES: tuple[FailMode, ...] = (
    FailMode(
        guard="every crossing",
        depends_on="policy bundle",
        reason="dependency.policy",
        tested_by="tests/e2e/test_dependencies.py::test_unreadable_policy_bundle_refuses",
    ),
    FailMode(
        guard="every crossing",
        depends_on="policy evaluation",
        reason="policy.error",
        tested_by="tests/unit/policy/test_engine.py",
    ),
    FailMode(
        guard="every crossing",
        depends_on="audit log (disk, lock, key)",
        reason="dependency.audit",
        tested_by="tests/e2e/test_dependencies.py::test_full_audit_disk_refuses",
    ),
    FailMode(
        guard="run",
        depends_on="state database",
        reason="dependency.database",
        tested_by="tests/e2e/test_dependencies.py::test_locked_database_refuses",
    ),
    FailMode(
        guard="run",
        depends_on="durable engine",
        reason="dependency.engine",
        tested_by="tests/unit/pipeline/test_engine.py",
    ),
    FailMode(
        guard="sandbox",
        depends_on="bubblewrap and user namespaces",
        reason="dependency.sandbox",
        tested_by="tests/e2e/test_dependencies.py::test_missing_bubblewrap_refuses",
    ),
    FailMode(
        guard="sandbox",
        depends_on="the configured minimum of walls",
        reason="dependency.walls",
        tested_by="tests/e2e/test_dependencies.py::test_missing_wall_refuses",
    ),
    FailMode(
        guard="run",
        depends_on="live guards (a forbidden call per crossing must be refused)",
        reason="dependency.guard",
        tested_by="tests/e2e/test_dependencies.py::test_dead_guard_refuses",
    ),
    FailMode(
        guard="context gateway",
        depends_on="the gateway's process",
        reason="dependency.gateway",
        tested_by="tests/e2e/test_dependencies.py::test_killed_gateway_ends_the_run",
    ),
    FailMode(
        guard="context gateway",
        depends_on="the workspace and openat2",
        reason="dependency.workspace",
        tested_by="tests/unit/boundary/context",
    ),
    FailMode(
        guard="model gateway",
        depends_on="provider",
        reason="dependency.provider",
        tested_by="tests/e2e/test_dependencies.py::test_provider_down_is_refused",
    ),
    FailMode(
        guard="model gateway",
        depends_on="provider key",
        reason="dependency.provider_key",
        tested_by="tests/e2e/test_dependencies.py::test_missing_provider_key_refuses",
    ),
    FailMode(
        guard="model gateway",
        depends_on="price table",
        reason="model.unknown_price",
        tested_by="tests/unit/boundary/models",
    ),
    FailMode(
        guard="budget",
        depends_on="ledger",
        reason="dependency.database",
        tested_by="tests/unit/cost",
    ),
    FailMode(
        guard="changes",
        depends_on="git",
        reason="dependency.git",
        tested_by="tests/e2e/test_dependencies.py::test_missing_git_refuses",
    ),
    FailMode(
        guard="review gate",
        depends_on="review key and gate rows",
        reason="dependency.review_key",
        tested_by="tests/unit/review",
    ),
)
