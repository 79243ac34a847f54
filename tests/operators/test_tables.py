import torch

from cclight.operators.tables import Table


def test_computes_each_key_once_and_casts_it_once_per_dtype():
    made = []

    def make(length):
        made.append(length)
        return (torch.arange(length, dtype=torch.float64),)

    table = Table(make)
    x = torch.zeros(1)
    assert table.like(3, x)[0].dtype == torch.float32
    assert table.like(3, x)[0] is table.like(3, x)[0]
    assert table.like(3, x.double())[0].dtype == table.exact(3)[0].dtype == torch.float64
    table.like(4, x)
    assert made == [3, 4]


def test_tensors_made_in_inference_mode_can_take_part_in_a_gradient():
    table = Table(lambda length: (torch.ones(length, dtype=torch.float64),))
    with torch.inference_mode():
        table.like(3, torch.zeros(1))
    assert not table.like(3, torch.zeros(1))[0].is_inference()
