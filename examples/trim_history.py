"""Keep a conversation inside the model's context by dropping its oldest turns."""

from collections.abc import Sequence

from vllmchat import ChatMessage, Message, VLLMProvider

History = Sequence[Message | ChatMessage]


def role(message: Message | ChatMessage) -> str:
    return message.role if isinstance(message, ChatMessage) else message["role"]


def trimmed(
    llm: VLLMProvider, history: History, *, context: int, reply: int
) -> History:
    """The system prompt, and as many of the newest turns as leave room for the reply.

    A turn begins with a user message, so a tool result stays with its call. Each count
    is a request, so the first turn is found by bisection: 7 requests for 100 turns.
    """
    head = list(history[:1]) if history and role(history[0]) == "system" else []
    starts = [index for index, message in enumerate(history) if role(message) == "user"]

    def fits(start: int) -> bool:
        return llm.count_tokens([*head, *history[start:]]) + reply <= context

    if not starts or fits(starts[0]):
        return history
    low, high = min(1, len(starts) - 1), len(starts) - 1  # the newest turn is kept
    while low < high:
        middle = (low + high) // 2
        if fits(starts[middle]):
            high = middle
        else:
            low = middle + 1
    return [*head, *history[starts[low] :]]


if __name__ == "__main__":
    llm = VLLMProvider()
    context = llm.max_model_len()
    history: list[Message | ChatMessage] = [{"role": "system", "content": "Be terse."}]
    for number in range(60):
        question = f"Question {number}: what is the capital of France?"
        history.append({"role": "user", "content": question})
        history.append({"role": "assistant", "content": "It is Paris."})
    history.append({"role": "user", "content": "Hello"})

    kept = trimmed(llm, history, context=context, reply=200)
    print(len(history), "messages:", llm.count_tokens(history), "tokens of", context)
    #> 122 messages: 2004 tokens of 2048
    print(len(kept), "messages:", llm.count_tokens(kept), "tokens")
    #> 112 messages: 1838 tokens
    print(llm.chat(kept, max_tokens=200, temperature=0).usage is not None)
    #> True
