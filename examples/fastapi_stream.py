"""Stream a reply to a browser with FastAPI, and stop the model when the browser leaves.

    pip install vllmchat fastapi uvicorn
    uvicorn fastapi_stream:app --port 9000
    curl -N http://127.0.0.1:9000/chat --json '{"text": "Tell me a story."}'
"""

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from vllmchat import (
    AsyncChatStream,
    BadRequestError,
    InvalidRequestError,
    RateLimitError,
    ServiceUnavailableError,
    VLLMChatError,
    VLLMProvider,
)

llm = VLLMProvider()  # one for the whole application


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    async with llm:
        yield


app = FastAPI(lifespan=lifespan)


class Question(BaseModel):
    text: str
    temperature: float = 0.7


def event(data: dict[str, str | None]) -> str:
    return f"data: {json.dumps(data)}\n\n"


async def events(stream: AsyncChatStream, stack: AsyncExitStack) -> AsyncGenerator[str]:
    # Starlette cancels this generator when the browser leaves. That leaves the
    # `async with`, which closes the stream, and vLLM stops generating.
    async with stack:
        try:
            async for chunk in stream:
                if chunk.text:
                    yield event({"text": chunk.text})
        except VLLMChatError as error:  # the status was sent long ago
            yield event({"error": error.message})
        else:
            yield event({"finish_reason": stream.completion.finish_reason})


@app.post("/chat")
async def chat(question: Question) -> StreamingResponse:
    # The request is sent here, before the response begins: an error has its own status.
    stack = AsyncExitStack()
    stream = await stack.enter_async_context(
        llm.astream(question.text, temperature=question.temperature, max_tokens=1500)
    )
    return StreamingResponse(
        events(stream, stack),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


@app.exception_handler(VLLMChatError)
async def failed(_: Request, error: VLLMChatError) -> JSONResponse:
    match error:
        case InvalidRequestError():  # a wrong parameter: nothing was sent
            status = 422
        case BadRequestError():  # such as a prompt that is too long
            status = 400
        case RateLimitError() | ServiceUnavailableError():
            status = 503
        case _:
            status = 502
    return JSONResponse({"error": error.message}, status)
