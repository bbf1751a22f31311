"""Which weights of a model train where most of it stays frozen: by name, so that they can be kept, counted and put back.

trained_weights(model, layers=2)    # the last two layers and what follows them
norm_weights(model)                 # gain and shift of every normalisation
head_weights(model)                 # the output head, on its own if it was tied to the embeddings
"""

from typing import Any

from torch import nn

from palate.config import UserError

Named = dict[str, nn.Parameter]


def trained_weights(model: Any, layers: int | None) -> Named:
    """Every weight of the decoder (`layers` None), or those of its last `layers` layers and of what follows them.

    The output head has no part in it and stays out, unless it shares its weights with the embeddings.
    """
    decoder = model.get_decoder()
    own = {id(parameter) for parameter in decoder.parameters()}
    named = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in own}
    if layers is None:
        return named
    count = int(model.config.get_text_config().num_hidden_layers)
    if not 0 <= layers <= count:
        raise UserError(f"--layers takes 0 to {count}, the layers of this model; got {layers}")
    if layers == 0:
        return {}
    children = list(decoder.children())
    at = next(
        (i for i, child in enumerate(children) if isinstance(child, nn.ModuleList) and len(child) == count),
        None,
    )
    if at is None:
        raise UserError("this model's layers can't be told apart: choose --method lora or full")
    stack = children[at]
    assert isinstance(stack, nn.ModuleList)
    wanted = {id(p) for part in [*stack[count - layers :], *children[at + 1 :]] for p in part.parameters()}
    return {name: parameter for name, parameter in named.items() if id(parameter) in wanted}


def norm_weights(model: Any) -> Named:
    """Gain and shift of every normalisation, known by its class's name (LayerNorm, LlamaRMSNorm, ...)."""
    norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
    wanted = {id(parameter) for module in norms for parameter in module.parameters(recurse=False)}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in wanted}


def head_weights(model: Any) -> Named:
    """The output head. One that is tied to the input embeddings gets a copy of its own first, and the model's config says
    so: were both to train, every layer would see other inputs, and nothing would be frozen.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embeddings.weight:
        head.weight = nn.Parameter(embeddings.weight.detach().clone())
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
        model.all_tied_weights_keys = {}  # transformers' own list of what it may leave out of a file
    wanted = {id(parameter) for parameter in head.parameters()}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in wanted}
