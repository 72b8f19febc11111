"""Files of a repository that start something, or that steer an agent. *Stdlib only; read on both sides.*"""

CONTROL_FILES = (
    ".github/workflows/ci.yml", ".gitlab-ci.yml", "Jenkinsfile", "CODEOWNERS", ".github/CODEOWNERS", ".mcp.json",
    ".claude/settings.json", "CLAUDE.md", "AGENTS.md", ".cursor/rules/x.mdc", ".vestibule/config.yaml",
)  # fmt: skip
STARTED_BY_PEOPLE = (
    ".vscode/tasks.json", ".idea/runConfigurations/x.xml", ".envrc", "Makefile", ".husky/pre-commit",
    ".pre-commit-config.yaml", "package.json", "conftest.py", "setup.py", "sitecustomize.py",
)  # fmt: skip
