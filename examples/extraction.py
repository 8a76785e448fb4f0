"""Extract records from many texts at once, and keep the failures apart."""

import asyncio
from typing import Annotated

from pydantic import BaseModel, Field

from vllmchat import VLLMChatError, VLLMProvider


class Person(BaseModel):
    """The limits are part of the schema: vLLM enforces them while it generates."""

    name: Annotated[str, Field(description="First name only.", max_length=30)]
    age: Annotated[int, Field(description="In years.", ge=0, le=150)]


async def extract(llm: VLLMProvider, text: str) -> Person | VLLMChatError:
    try:
        parsed = await llm.aparse(text, Person, temperature=0, max_tokens=400)
    except VLLMChatError as error:  # one text does not spoil the others
        return error
    return parsed.value


async def main() -> None:
    text = "Write JSON for a user named Ada, age 36."
    texts = [text, text * 500]  # the second one is longer than the model's context
    async with VLLMProvider() as llm:
        results = await asyncio.gather(*(extract(llm, text) for text in texts))
    print([result for result in results if isinstance(result, Person)])
    #> [Person(name='Ada', age=36)]
    errors = [result for result in results if isinstance(result, VLLMChatError)]
    print([type(error).__name__ for error in errors])
    #> ['ContextWindowExceededError']


asyncio.run(main())
