//! Who asks, and which groups they are in: by the register for whoever has a key, by their token alone for whoever an
//! identity provider vouches for. The one place that says who is a member.
//!
//! Of somebody vouched for, lists of members count only against them: a deny that speaks to a role closes whether the token
//! or the register says that they have it, a grant opens only if the token says so. So who leaves an organisation is out of
//! its roles with the last token, whatever list was forgotten.

use schemas_identity::statement::{Role, Study};
use schemas_identity::token::Vouched;
use schemas_identity::{Did, Register};

/// The asking party with its groups.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    register: &'a Register,
    /// Under its first key.
    party: Did,
    vouched: Option<&'a Vouched>,
}

impl<'a> Asker<'a> {
    /// A party, and what is vouched of it if it has no key of its own.
    pub fn new(register: &'a Register, party: &Did, vouched: Option<&'a Vouched>) -> Asker<'a> {
        Asker { register, party: register.subject_of(party), vouched }
    }

    /// The party under its first key.
    pub fn party(&self) -> &Did {
        &self.party
    }

    /// Whether it is this party, by any of its keys.
    pub fn is(&self, party: &Did) -> bool {
        self.register.subject_of(party) == self.party
    }

    /// Whether a grant to this role speaks to it.
    pub fn has_role(&self, role: &Role) -> bool {
        match self.vouched {
            Some(vouched) => vouched.roles.contains(&role.role),
            None => self.is_listed(&role.members),
        }
    }

    /// Whether a deny to the role of this name speaks to it: wider, for doubt closes.
    pub fn may_have_role(&self, name: &str) -> bool {
        let is_vouched = self.vouched.is_some_and(|vouched| vouched.roles.contains(name));
        is_vouched || self.register.role(name).is_some_and(|role| self.is_listed(&role.members))
    }

    /// Whether it takes part in this study.
    pub fn is_in_study(&self, study: &Study) -> bool {
        match self.vouched {
            Some(vouched) => vouched.studies.contains(&study.study),
            None => self.is_listed(&study.members),
        }
    }

    fn is_listed(&self, members: &[Did]) -> bool {
        members.iter().any(|member| self.is(member))
    }
}
