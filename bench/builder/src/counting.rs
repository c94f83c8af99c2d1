//! Whether every payment is in its card's value, once. Pure.

/// Payments by customer.
#[derive(Debug, Clone)]
pub struct Written(Vec<u64>);

impl Written {
    pub fn nothing(customers: u64) -> Self {
        Self((0..customers).map(|_| 0).collect())
    }

    pub fn note(&mut self, customer: u64) {
        if let Some(count) = usize::try_from(customer).ok().and_then(|at| self.0.get_mut(at)) {
            *count += 1;
        }
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Payments that are missing, and payments that are there more than once.
    pub fn compare(&self, found: &[u64]) -> (u64, u64) {
        let beyond = |(more, less): (&u64, &u64)| more.saturating_sub(*less);
        (self.0.iter().zip(found).map(beyond).sum(), found.iter().zip(&self.0).map(beyond).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_card_lacks_is_not_made_up_for_by_another() {
        let mut written = Written::nothing(3);
        [0, 0, 1, 2, 2].into_iter().for_each(|customer| written.note(customer));
        assert_eq!((written.total(), written.compare(&[2, 1, 2])), (5, (0, 0)));
        assert_eq!(written.compare(&[1, 3, 2]), (1, 2));
    }
}
