"""
A role as a LangChain chat model, for chains, agents and LangGraph.

    from breakwater.langchain import ChatBreakwater

    model = ChatBreakwater(role="coder")
    model.invoke("Write a quicksort").text

    messages.py   LangChain's messages as ours
    answers.py    our results and events as LangChain's messages
    chunks.py     a stream's chunks, and what follows when an answer begins again
    tools.py      tools, tool choice and schemas as ours
    model.py      the chat model over all of them; `breakwater/asking/pending.py` waits for answers
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
