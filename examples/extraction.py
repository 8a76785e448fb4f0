"""Extract records from many texts at once, and keep the failures apart."""

from typing import Annotated

from pydantic import BaseModel, Field

from vllmchat import VLLMProvider


class Person(BaseModel):
    """The limits are part of the schema: vLLM enforces them while it generates."""

    name: Annotated[str, Field(description="First name only.", max_length=30)]
    age: Annotated[int, Field(description="In years.", ge=0, le=150)]


llm = VLLMProvider()
text = "Write JSON for a user named Ada, age 36."
texts = [text, text * 500]  # the second one is longer than the model's context
for result in llm.map(texts, kind=Person, temperature=0, max_tokens=400):
    if result.ok:
        print(result.index, repr(result.value))
        #> 0 Person(name='Ada', age=36)
    else:
        print(result.index, type(result.error).__name__)
        #> 1 ContextWindowExceededError
