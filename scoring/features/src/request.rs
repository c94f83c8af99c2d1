//! What is sent to a shard in one go: commands, each with one answer.
//!
//! The only place where commands become the types of the client library; its replacement changes this file and `link.rs`.

use redis::{Cmd, Pipeline};

pub(crate) struct Request(Pipeline);

impl Request {
    pub(crate) fn with_room_for(commands: usize) -> Self {
        Self(Pipeline::with_capacity(commands))
    }

    /// Adds a command of few words.
    pub(crate) fn command(&mut self, words: &[&[u8]]) {
        let mut command = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
        for word in words {
            command.arg(*word);
        }
        self.0.add_command(command);
    }

    /// Adds a command of many words, `bytes` long in all.
    pub(crate) fn long_command<'a>(&mut self, count: usize, bytes: usize, words: impl IntoIterator<Item = &'a [u8]>) {
        let mut command = Cmd::with_capacity(count, bytes);
        for word in words {
            command.arg(word);
        }
        self.0.add_command(command);
    }

    pub(crate) fn answers(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn pipeline(&self) -> &Pipeline {
        &self.0
    }
}
