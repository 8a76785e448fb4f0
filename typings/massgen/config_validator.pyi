from typing import Any

class ValidationIssue:
    message: str
    location: str
    suggestion: str | None

class ValidationResult:
    errors: list[ValidationIssue]
    def add_error(self, message: str, location: str, suggestion: str | None = None) -> None: ...

class ConfigValidator:
    def validate_config(self, config: dict[str, Any]) -> ValidationResult: ...
    def _validate_backend(
        self, backend_config: dict[str, Any], location: str, result: ValidationResult
    ) -> None: ...
