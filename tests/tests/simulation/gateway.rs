//! A gateway of a cluster: what it keeps, and what its agent told it.

use crate::{
    dice::Dice,
    network::{Heard, Pipe, damaged},
};
use std::{path::Path, sync::Arc};
use tombolo_agent::{
    gateways::{Hub, Stream, Turn, Why},
    synthesis::Synthesis,
};
use tombolo_feed::{Follower, Took, cache};
use tombolo_gateway::state::prepare;
use tombolo_model::{
    Generation,
    snapshot::{GatewayResource, Resources},
};
use tombolo_wire::{
    digest::Stated,
    message::{FeedLine, GatewayHello},
    version::Hello,
};

struct Link {
    stream: Stream,
    pipe: Pipe,
}

pub(crate) struct Process {
    follower: Follower<GatewayResource>,
    link: Option<Link>,
}

pub(crate) struct Gateway {
    tenant: usize,
    pub(crate) hello: GatewayHello,
    cache: Option<Vec<u8>>,
    older: Option<Vec<u8>>,
    pub(crate) process: Option<Process>,
    /// Whether its agent knew it, at a time.
    pub(crate) was_known: bool,
    heard: Heard,
    /// Which of the states that its agent could give it has.
    pub(crate) at: usize,
}

impl Gateway {
    pub(crate) fn new(tenant: usize, hello: GatewayHello) -> Self {
        let (cache, older, process) = (None, None, None);
        Self { tenant, hello, cache, older, process, was_known: false, heard: Heard::default(), at: 0 }
    }

    pub(crate) fn start(&mut self, dice: &mut Dice, lies: bool) -> &'static str {
        self.process = None;
        self.at = 0;
        let older = self.older.clone();
        let how = if lies { damaged(dice, &mut self.cache, &older) } else { "whole" };
        let mut follower: Follower<GatewayResource> = Follower::new(Arc::new(validate));
        let kept = self.cache.as_deref().map(|bytes| cache::read(Path::new("table"), bytes));
        // one that can't be used is none
        let _ = follower.restore(kept.transpose());
        self.process = Some(Process { follower, link: None });
        how
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.link.is_some())
    }

    pub(crate) fn cut(&mut self) {
        if let Some(process) = &mut self.process {
            process.link = None;
        }
    }

    /// Says hello, and (unless the connection ends before) asks for the feed.
    pub(crate) fn connect(&mut self, hub: &Arc<Hub>, whole: bool) {
        let Some(process) = &mut self.process else { return };
        process.link = None;
        hub.hello(self.hello.clone()).unwrap();
        self.was_known = true;
        if !whole {
            return;
        }
        let (stream, lines) = hub.open(&self.hello.instance, process.follower.begin()).unwrap();
        let mut pipe = Pipe::default();
        let hello: FeedLine<GatewayResource> = FeedLine::Hello(Hello::current("tombolo-agent"));
        pipe.send(self.tenant, &hello);
        for line in &lines {
            self.heard.put(pipe.send(self.tenant, line));
        }
        process.link = Some(Link { stream, pipe });
    }

    /// The agent says what it has to say.
    pub(crate) fn feed(&mut self, why: Why) {
        let Some(process) = &mut self.process else { return };
        let Some(link) = process.link.as_mut().filter(|link| link.pipe.has_room()) else { return };
        match link.stream.turn(why) {
            Turn::Line(line) => self.heard.put(link.pipe.send(self.tenant, &line)),
            Turn::Nothing => {}
            Turn::Over => process.link = None,
        }
    }

    /// What it heard so far does not come once more.
    pub(crate) fn forget(&mut self) {
        self.heard = Heard::default();
    }

    pub(crate) fn replay(&mut self, dice: &mut Dice) {
        let lines = self.heard.lines();
        let link = self.process.as_mut().and_then(|process| process.link.as_mut());
        if let (Some(link), false) = (link, lines.is_empty()) {
            link.pipe.replay(&dice.pick(&lines));
        }
    }

    /// What is under way is damaged. Whether there was something.
    pub(crate) fn spoil(&mut self, dice: &mut Dice) -> bool {
        let link = self.process.as_mut().and_then(|process| process.link.as_mut());
        link.is_some_and(|link| link.pipe.spoil(dice))
    }

    /// Some bytes of the feed come. `could` are the states that the agent could give its gateways, in their order.
    pub(crate) fn deliver(&mut self, part: Option<&mut Dice>, hub: &Hub, could: &[Synthesis]) {
        let Some(process) = &mut self.process else { return };
        let Some(link) = &mut process.link else { return };
        let most = match part {
            Some(dice) => dice.below(link.pipe.len() + 1),
            None => link.pipe.len(),
        };
        for line in link.pipe.deliver::<FeedLine<Stated<GatewayResource>>>(most) {
            let Some(line) = line else {
                process.link = None;
                return;
            };
            let before = process.follower.generation();
            match process.follower.take(line) {
                Ok(Took::State { state, ack }) => {
                    assert!(
                        before <= ack.generation,
                        "the generation falls from {before} to {}",
                        ack.generation
                    );
                    hub.ack(&self.hello.instance, ack).unwrap();
                    let Some(state) = state else { continue };
                    let is_that = |could: &Synthesis| could.for_gateway(&self.hello) == *state.resources;
                    let Some(further) = could[self.at..].iter().position(is_that) else {
                        if let Some(last) = could.last() {
                            crate::process::same(&state.resources, &last.for_gateway(&self.hello), || {
                                format!(
                                    "gateway {} of tenant {}, which has what its agent could never give it after what it \
                                     gave before",
                                    self.hello.instance, self.tenant
                                )
                            });
                        }
                        panic!("gateway {} is told something of before", self.hello.instance)
                    };
                    self.at += further;
                }
                Ok(Took::Hello(_) | Took::Alive(_)) => {}
                Ok(Took::Refused { generation, reason, .. }) => {
                    panic!("generation {generation} is a good one, and was refused: {reason}")
                }
                Ok(Took::Goodbye(_)) | Err(_) => {
                    process.link = None;
                    return;
                }
            }
        }
    }

    pub(crate) fn keep(&mut self) {
        let Some(process) = &self.process else { return };
        if process.follower.generation() > Generation::ZERO {
            let mut bytes = Vec::new();
            let state = process.follower.state();
            cache::write(&mut bytes, state.generation, &state.resources).unwrap();
            self.older = self.cache.replace(bytes);
        }
    }

    pub(crate) fn state(&self) -> Option<(Generation, Arc<Resources<GatewayResource>>)> {
        let state = self.process.as_ref()?.follower.state();
        Some((state.generation, state.resources))
    }
}

fn validate(resources: &Resources<GatewayResource>) -> Result<(), String> {
    prepare(resources).map(drop).map_err(|error| tombolo_runtime::telemetry::chain(&error))
}
