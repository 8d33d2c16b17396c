"""The server: OpenAI's and Anthropic's protocols, and a page, on one engine.

    import edgemoe.server

    edgemoe.server.serve("qwen.store", memory="8GiB")

``create_app`` gives the same as an ASGI application, for any host. Needs ``pip install 'edgemoe[serve]'``.
"""

from edgemoe.server.options import Limits, ServerOptions
from edgemoe.server.running import create_app, serve

__all__ = ["Limits", "ServerOptions", "create_app", "serve"]
