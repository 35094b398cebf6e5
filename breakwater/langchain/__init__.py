"""
A role as a LangChain chat model, for chains, agents and LangGraph.

    from breakwater.langchain import ChatBreakwater

    model = ChatBreakwater(role="coder")
    model.invoke("Write a quicksort").text

    question.py   one call of `complete`: enqueued, waited for, cancelled
    listener.py   hears of settled tasks, for all who wait in this process
    messages.py   LangChain's messages as ours
    answers.py    our results and events as LangChain's messages
    tools.py      tools, tool choice and schemas as ours
    model.py      the chat model over all of them
"""

try:
    import langchain_core as _  # noqa: F401 - only to see whether it is there
except ModuleNotFoundError as missing:
    if missing.name != "langchain_core":
        raise
    raise ImportError(
        "breakwater.langchain needs langchain-core: pip install 'breakwater-llm[langchain]'"
    ) from None

from breakwater.asking.pending import AnswerRestarted
from breakwater.langchain.model import ChatBreakwater

__all__ = ["AnswerRestarted", "ChatBreakwater"]
