"""Training runs as in official examples, which paint, play, read a graph, and are resumed; nothing is wrong."""

from __future__ import annotations

import io
import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from stepscope.examples.broken import data
from stepscope.examples.broken.lab import Lab, descend


def _begin(module: nn.Module) -> None:
    """The initial weights of the example."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)


def convolutional_rivals(lab: Lab) -> None:
    """A small DCGAN of digits, as in pytorch/examples: batch norm, Adam a beta of 0.5, a fixed noise to look at."""
    generator = nn.Sequential(
        nn.ConvTranspose2d(16, 32, 2, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1, bias=False), nn.Tanh(),
    ).apply(_begin)  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1, bias=False), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 4, 2, 1, bias=False),
        nn.BatchNorm2d(32), nn.LeakyReLU(0.2), nn.Conv2d(32, 1, 2, 1, 0, bias=False), nn.Sigmoid(), nn.Flatten(0),
    ).apply(_begin)  # fmt: skip
    make, judge = (torch.optim.Adam(net.parameters(), 4e-3, betas=(0.5, 0.999)) for net in (generator, discriminator))
    lab.recorder.watch({"generator": generator, "discriminator": discriminator}, {"generator": make, "critic": judge})
    criterion, fixed_noise = nn.BCELoss(), torch.randn(16, 16, 1, 1)
    x, y = data.images()
    batches = data.draw((2 * (x - x.min()) / (x.max() - x.min()) - 1, y), 48)
    for number in range(250):
        real, _ = batches(number)
        yes, no = torch.ones(len(real)), torch.zeros(len(real))
        with lab.recorder.step("train") as step:
            fake = generator(torch.randn(len(real), 16, 1, 1))
            judge.zero_grad()
            with step.loss_group("discriminator"):
                criterion(discriminator(real), yes).backward()
                criterion(discriminator(fake.detach()), no).backward()
            judge.step()
            with step.loss_group("generator"):
                descend(criterion(discriminator(fake), yes), make)
        if number % 50 == 49:
            with torch.no_grad():
                lab.recorder.scalar("brightness", generator(fixed_noise).mean())


class _Block(nn.Module):
    """Two convolutions that are told the moment, and pass on what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)
        self.moment = nn.Linear(32, width)
        self.norm2, self.conv2 = nn.GroupNorm(4, width), nn.Conv2d(width, width, 3, padding=1)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.moment(moment)[:, :, None, None]
        return x + self.conv2(self.dropout(F.silu(self.norm2(h))))


class _Painter(nn.Module):
    """A small U-net that tells the noise in a picture."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.moment = nn.Sequential(nn.Linear(16, 32), nn.SiLU())
        self.into, self.first = nn.Conv2d(1, width, 3, padding=1), _Block(width)
        self.down, self.middle = nn.Conv2d(width, width, 3, 2, 1), _Block(width)
        self.up, self.last = nn.Conv2d(2 * width, width, 1), _Block(width)
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        wave = moment[:, None] * torch.exp(-math.log(1000) * torch.arange(8) / 8)
        told = self.moment(torch.cat([wave.sin(), wave.cos()], dim=1))
        first = self.first(self.into(x), told)
        middle = F.interpolate(self.middle(self.down(first), told), scale_factor=2.0)
        return self.out(F.silu(self.last(self.up(torch.cat([first, middle], dim=1)), told)))


def noise_in_bfloat16(lab: Lab) -> None:
    """Diffusion as in the basic training of diffusers: warm-up and cosine, accumulation, clipping, an average."""
    model = _Painter()
    average = deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    steps = lab.steps - 30
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / 15, 0.5 * (1 + math.cos(math.pi * max(0, n - 15) / (steps - 15))))
    )
    kept = torch.linspace(1e-4, 0.04, 100).neg().add(1).cumprod(0)
    lab.recorder.watch({"model": model, "average": average}, optimizer)
    batches = data.draw(data.images(), 24)

    def error(net: nn.Module, x: torch.Tensor, chance: torch.Generator | None = None) -> torch.Tensor:
        moment, noise = torch.randint(100, (len(x),), generator=chance), torch.randn(x.shape, generator=chance)
        share = kept[moment][:, None, None, None]
        with torch.autocast("cpu", torch.bfloat16):
            found = net(share.sqrt() * x + (1 - share).sqrt() * noise, moment.float())
        return F.mse_loss(found.float(), noise)

    for number in range(steps):
        with lab.recorder.step("train") as step:
            optimizer.zero_grad()
            for part in range(2):
                with step.iteration():
                    (error(model, batches(2 * number + part)[0]) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            for old, new in zip(average.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 1 - min(0.95, (1 + number) / (10 + number)))
        lab.validate(batches, lambda x, _: error(average, x, torch.Generator().manual_seed(1)), 3000 + number)


def _layer(inputs: int, outputs: int, gain: float = math.sqrt(2)) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class _Balancer(nn.Module):
    """The agent of CleanRL: an actor and a critic with layers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(_layer(2, 64), nn.Tanh(), _layer(64, 64), nn.Tanh(), _layer(64, 1, 1.0))
        self.actor = nn.Sequential(_layer(2, 64), nn.Tanh(), _layer(64, 64), nn.Tanh(), _layer(64, 2, 0.01))


class _Poles:
    """Sixteen poles that fall over if nobody pushes; one that fell is set up again."""

    def __init__(self) -> None:
        self.state = 0.1 * torch.randn(16, 2)

    def push(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rewards, and which poles fell."""
        speed = self.state[:, 1] + 0.12 * (2 * action - 1) + 0.2 * self.state[:, 0] + 0.02 * torch.randn(16)
        angle = self.state[:, 0] + 0.3 * speed
        fell = angle.abs() > 0.6
        upright = torch.stack([angle, speed], dim=1)
        self.state = torch.where(fell[:, None], 0.1 * torch.randn(16, 2), upright)
        return torch.ones(16), fell.float()


@torch.no_grad()
def _rollout(agent: _Balancer, poles: _Poles, length: int = 32) -> dict[str, torch.Tensor]:
    """What was seen and done, how likely that was, what it was worth, and how much better than expected."""
    states, actions, chances, values, rewards, ends = [], [], [], [], [], []
    for _ in range(length):
        choice = torch.distributions.Categorical(logits=agent.actor(poles.state))
        action = choice.sample()
        states.append(poles.state)
        values.append(agent.critic(poles.state)[:, 0])
        reward, fell = poles.push(action.float())
        actions.append(action)
        chances.append(choice.log_prob(action))
        rewards.append(reward)
        ends.append(fell)
    later, gae, advantages = agent.critic(poles.state)[:, 0], torch.zeros(16), list[torch.Tensor]()
    for now in reversed(range(length)):
        error = rewards[now] + 0.97 * (1 - ends[now]) * later - values[now]
        gae = error + 0.97 * 0.95 * (1 - ends[now]) * gae
        later = values[now]
        advantages.insert(0, gae)
    found = {"state": states, "action": actions, "chance": chances, "value": values, "advantage": advantages}
    flat = {name: torch.stack(tensors).flatten(0, 1) for name, tensors in found.items()}
    return {**flat, "falls": torch.stack(ends).mean()}


def balanced_by_proximal_steps(lab: Lab) -> None:
    """PPO as in CleanRL: rollouts, generalised advantages, two epochs of minibatches, clipping, and a falling rate."""
    agent, poles = _Balancer(), _Poles()
    optimizer = torch.optim.Adam(agent.parameters(), 2.5e-3, eps=1e-5)
    lab.recorder.watch(agent, optimizer)
    for update in range(18):
        optimizer.param_groups[0]["lr"] = 2.5e-3 * (1 - update / 18)
        memory = _rollout(agent, poles)
        lab.recorder.scalar("falls", memory["falls"])
        for _ in range(2):
            for rows in torch.randperm(512).split(128):
                state, action, old, value, advantage = (memory[name][rows] for name in list(memory)[:5])
                normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                with lab.recorder.step("train"):
                    choice = torch.distributions.Categorical(logits=agent.actor(state))
                    ratio = (choice.log_prob(action) - old).exp()
                    policy = -torch.min(ratio * normal, ratio.clamp(0.8, 1.2) * normal).mean()
                    critic = 0.5 * (agent.critic(state)[:, 0] - (value + advantage)).square().mean()
                    loss = policy - 0.01 * choice.entropy().mean() + 0.5 * critic
                    optimizer.zero_grad()
                    loss.backward()
                    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                    optimizer.step()


class _Citations(nn.Module):
    """Two graph convolutions with dropout before each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Linear(60, 16), nn.Linear(16, 4)

    def forward(self, papers: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        x = F.dropout(papers, 0.5, self.training)
        x = F.relu(edges @ self.conv1(x))
        return edges @ self.conv2(F.dropout(x, 0.5, self.training))


def papers_that_cite_each_other(lab: Lab) -> None:
    """GCN as in pytorch_geometric's example: the whole graph at once, few labels, decay for the first layer alone."""
    chance = torch.Generator().manual_seed(8)
    field = torch.randint(4, (300,), generator=chance)
    cites = (torch.rand(300, 300, generator=chance) < torch.where(field[:, None] == field, 0.03, 0.004)).float().triu(1)
    cites = cites + cites.T + torch.eye(300)
    share = cites.sum(1).rsqrt()
    edges = share[:, None] * cites * share
    odds = torch.where(torch.arange(60) // 15 == field[:, None], 0.2, 0.05)
    words = (torch.rand(300, 60, generator=chance) < odds).float()
    papers = words / words.sum(1, keepdim=True).clamp(min=1)
    known = torch.rand(300, generator=chance) < 0.25
    model = _Citations()
    groups = [
        {"params": [*model.conv1.parameters()], "weight_decay": 5e-4},
        {"params": [*model.conv2.parameters()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, 0.01)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(papers, edges)[rows], field[rows])

    def after(number: int) -> None:
        model.eval()
        lab.validate(lambda _: (~known,), loss_of, number)
        model.train()

    lab.fit(model, lambda _: (known,), loss_of, optimizer, after=after)


def resumed_in_the_middle(lab: Lab) -> None:
    """A classifier as in pytorch/examples' imagenet: SGD, StepLR, augmentation, validation, a resumed checkpoint."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Dropout(0.1), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.3)
    lab.recorder.watch(model, optimizer)
    (x, y), (unseen, labels) = data.images(), data.unseen_pixels()
    others = data.draw((unseen.unflatten(1, (1, 8, 8)), labels), 200)
    order, saved = torch.Generator().manual_seed(5), io.BytesIO()
    for epoch in range(6):
        if epoch == 3:
            saved.seek(0)
            state = torch.load(saved)
            for part in (model, optimizer, schedule):
                part.load_state_dict(state[type(part).__name__])
        for rows in torch.randperm(len(x), generator=order).split(56)[:25]:
            shift = torch.randint(-1, 2, (2,), generator=order).tolist()
            with lab.recorder.step("train"):
                descend(F.cross_entropy(model(x[rows].roll(shift, (2, 3))), y[rows], label_smoothing=0.1), optimizer)
        model.eval()
        lab.validate(others, lambda x, y: F.cross_entropy(model(x), y), 30 * epoch + 29)
        model.train()
        schedule.step()
        saved.seek(0)
        torch.save({type(part).__name__: part.state_dict() for part in (model, optimizer, schedule)}, saved)
