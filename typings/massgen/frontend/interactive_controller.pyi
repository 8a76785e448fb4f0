from typing import Any

class InteractiveSessionController:
    _question_source: Any
    def stop(self) -> None: ...
