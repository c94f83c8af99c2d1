//! Counts what test runners say they ran. Pure.

use std::ops::AddAssign;

/// How many tests, or stages that have no tests of their own, passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Counts {
    /// The counts of a stage whose command ended well or not. A command that fails without having counted a failure (it did not compile, it was
    /// killed) is one failure; one that ends well without having counted anything is one success.
    pub(crate) fn of_stage(self, ended_well: bool) -> Self {
        match (ended_well, self) {
            (false, Self { failed: 0, passed }) => Self { passed, failed: 1 },
            (true, Self { passed: 0, failed: 0 }) => Self { passed: 1, failed: 0 },
            _ => self,
        }
    }

    pub(crate) fn line(self) -> String {
        format!("{} passed, {} failed", self.passed, self.failed)
    }
}

/// How a runner reports a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `test result: ok. 12 passed; 0 failed; …` once per test binary.
    Cargo,
    /// `ok …` or `FAILED …` once per check, as our own programs print them.
    Checks,
    /// Prints nothing that counts: the exit status is the result.
    ExitStatus,
}

/// What one line of a runner's output adds.
pub(crate) fn count(format: Format, line: &str) -> Counts {
    match format {
        Format::Cargo => cargo_line(line).unwrap_or_default(),
        Format::Checks => match line.split_whitespace().next() {
            Some("ok") => Counts { passed: 1, failed: 0 },
            Some("FAILED") => Counts { passed: 0, failed: 1 },
            _ => Counts::default(),
        },
        Format::ExitStatus => Counts::default(),
    }
}

fn cargo_line(line: &str) -> Option<Counts> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let number = |word: &str| rest.split([';', '.']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u64>().ok());
    Some(Counts { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_result_lines_are_counted_and_nothing_else() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s";
        assert_eq!(count(Format::Cargo, line), Counts { passed: 12, failed: 0 });
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(count(Format::Cargo, line), Counts { passed: 3, failed: 2 });
        for other in ["test tar::tests::name ... ok", "running 12 tests", "test result: odd", ""] {
            assert_eq!(count(Format::Cargo, other), Counts::default(), "{other}");
        }
    }

    #[test]
    fn checks_are_counted_by_their_first_word() {
        assert_eq!(count(Format::Checks, "  ok      three regions Ready"), Counts { passed: 1, failed: 0 });
        assert_eq!(count(Format::Checks, "FAILED  p99 below 100 ms: 143 ms"), Counts { passed: 0, failed: 1 });
        assert_eq!(count(Format::Checks, "okay, and so on"), Counts::default());
    }

    #[test]
    fn a_command_that_fails_before_it_counts_is_a_failure() {
        assert_eq!(Counts::default().of_stage(false), Counts { passed: 0, failed: 1 });
        assert_eq!(Counts { passed: 5, failed: 0 }.of_stage(false), Counts { passed: 5, failed: 1 });
        assert_eq!(Counts { passed: 5, failed: 2 }.of_stage(false), Counts { passed: 5, failed: 2 });
        assert_eq!(Counts::default().of_stage(true), Counts { passed: 1, failed: 0 });
    }
}
