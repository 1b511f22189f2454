"""The graph panel's drawing: from a recorded graph to boxes, frames and lines with positions.

Pure functions, standard library only; ``assets/graph*.js`` puts a drawing on the screen and nothing else knows its
shape. A *tensor* is a vertex of the graph, told by ``(node, role, lag)``; a *box* shows one tensor, a node with all
its roles, or a closed module with all that is in it; a *row* is a line inside a box (a parameter, a role of a node)
that can be selected on its own; a *frame* is an open module.

``draw`` returns a dictionary that ``json.dumps`` takes as it is::

    {
      "hash": "5f0c...",            # equal hashes: equal pictures; the panel then keeps its pan and zoom
      "width": 980.0, "height": 310.0,                  # pixels at scale 1
      "opened": ["model", "model.blocks"],              # the modules that were asked for, or opened on their own
      "refused": [],                # modules that stayed closed because there would have been too many boxes
      "boxes": [{
          "id": "n:model.fc1",      # unique in the drawing; "m:<module>" for closed modules
          "type": "calculated",     # a tensor type, or "module"
          "label": "fc1", "sub": "Linear",              # text in the box
          "title": "model.fc1",     # the full name
          "x": 12.0, "y": 40.0, "w": 120.0, "h": 62.0,
          "node": "model.fc1", "role": "output", "lag": 0,      # what a click selects; node is None for modules
          "module": None,           # for closed modules: the path that a toggle names
          "tensors": 1, "parameters": 2,                # how many the box stands for, its rows included
          "rows": [{"id": "r:model.fc1.weight", "label": "weight", "type": "parameter", "title": "model.fc1.weight",
                    "node": "model.fc1.weight", "role": "parameter", "lag": 0, "y": 26.0, "h": 15.0}],
          "loose": {"left": False, "right": True},      # against expectation depends on nothing; nothing depends on it
          "main": True,             # on the main line
      }],
      "frames": [{"id": "f:model", "module": "model", "label": "model", "title": "model", "depth": 0,
                  "x": 0.0, "y": 0.0, "w": 500.0, "h": 300.0, "tensors": 12, "parameters": 6}],
      "segments": [{                # pieces of lines; a piece serves all consumers of one source beyond it
          "source": 0,              # index of a box
          "sinks": [1, 4],          # indices of boxes
          "path": "M10 20C30 20 ...",   # SVG path data
          "blocked": False,         # no gradient passes, for all members
          "back": False,            # runs against the reading direction (a module that is used twice)
          "arrow": True,            # ends at a box
      }],
      "links": [[0, 1, 0]],         # source box, sink box, 1 if no gradient passes
      "tensors": [["model.fc1", "output", 0, 0, -1]],   # every vertex, in the graph's order: node, role, lag, box, row
    }

An *overlay* (made by the caller, handed to ``window.stepscope.graph.setOverlay``) speaks of tensors by key, which is
``node + "\\n" + role + "\\n" + lag`` (``tensor_key``)::

    {"colours": {key: "#fde0c5"}, "texts": {key: "std 0.031"}, "bad": [key, ...],
     "marks": {node: ["error" or "warning", "what is wrong with it"]},
     "legend": {"title": "std", "colours": ["#...", ...], "low": "1e-4", "high": "0.3"} or None}

In the browser, ``window.stepscope.graph`` has::

    mount(elementId, drawing, overlay, selection, callbacks)   # callbacks: {select(node, role, lag), toggle(module)},
                                                               # and selectModule(module), if that matters to anybody
    select(elementId, selection)                               # {node, role?, lag?} or {module} or null
    setOverlay(elementId, overlay)
    fit(elementId)
    key(node, role, lag)                                       # the same as ``tensor_key``

A ``mount`` with an equal hash keeps pan and zoom. Where only a module was opened or closed, that module stays where it
is on the screen. The arrow keys walk along edges, Enter opens or closes the selected module, + - and 0 zoom and fit;
none of them acts while a field, a list, a table or a button that wants the key has the focus, or with a modifier key.
Boxes and rows carry ``data-id``, ``data-node``, ``data-role`` and ``data-lag``, closed modules and frames
``data-module``, pieces of lines ``data-source`` (the id of a box).
"""

from stepscope.viewer.graph.draw import draw, open_to
from stepscope.viewer.graph.keys import tensor_key

__all__ = ["draw", "open_to", "tensor_key"]
