"""The page's colours before its first paint.

Gradio adds a page's own head by script, long after the browser has painted an empty page in the system's colours:
a flash for whoever has chosen the others. This middleware puts the choice into the HTML itself.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# the same key and the same colours as in assets/core.js and assets/ranking.css
EARLY = b"""<head><script>(() => {
  let chosen = null;
  try { chosen = JSON.parse(localStorage.getItem("palate:settings"))?.theme; } catch { /* none */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark", dark);
})();</script><style>body { background: #f6f6f3 !important; } .dark body { background: #161715 !important; }</style>"""


class FirstPaint:
    """Adds `EARLY` to pages that Gradio draws; everything else passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold an HTML response until it is whole, then send it with the addition."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        start: Message | None = None
        body = bytearray()

        async def through(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if MutableHeaders(scope=message).get("content-type", "").startswith("text/html"):
                    start = message
                    return
            elif start is not None:
                body.extend(message.get("body", b""))
                if message.get("more_body"):
                    return
                whole = bytes(body)
                if b"<gradio-app" in whole:
                    whole = whole.replace(b"<head>", EARLY, 1)
                MutableHeaders(scope=start)["content-length"] = str(len(whole))
                await send(start)
                message = {"type": "http.response.body", "body": whole}
            await send(message)

        await self.app(scope, receive, through)
