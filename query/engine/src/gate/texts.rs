//! Bounds of the texts in a statement. A text is repeated for every row of a batch by whatever function or choice it goes
//! through, in memory no account knows of; and a pattern's cost is its compiled size for every character of every row.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::error::{EngineError, Limit};

/// Longest text, name or number, bytes.
pub const LITERAL_BYTES_MAX: usize = 256;
/// All texts of a statement together, those in `IN (...)` apart, bytes.
pub const LITERALS_BYTES_MAX: usize = 8 * 1024;
/// The longest text times the brackets and CASEs it may go through, bytes; times the rows of a batch it is the memory
/// that a statement can take for texts.
pub const LITERAL_COPIES_BYTES_MAX: usize = 64 * 1024;
/// A regular expression, compiled, bytes.
pub const PATTERN_BYTES_MAX: usize = 256 * 1024;

/// What the tokens so far add up to.
#[derive(Default)]
pub(super) struct Texts {
    longest: usize,
    sum: usize,
    calls: usize,
    /// For each open bracket, whether it is a list of values.
    lists: Vec<bool>,
    is_after_in: bool,
}

impl Texts {
    /// Counts one token.
    pub(super) fn count(&mut self, token: &Token) -> Result<(), EngineError> {
        let bytes = match token {
            Token::Word(word) => {
                if matches!(word.keyword, Keyword::CASE | Keyword::WHEN) {
                    self.calls += 1;
                }
                word.value.len()
            }
            Token::LParen => {
                self.lists.push(self.is_after_in);
                self.calls += 1;
                0
            }
            Token::RParen => {
                self.lists.pop();
                0
            }
            other => bytes_of(other),
        };
        self.is_after_in = matches!(token, Token::Word(word) if word.keyword == Keyword::IN);
        let is_text = !matches!(token, Token::Word(_) | Token::Number(..));
        if is_text && bytes > 0 {
            self.longest = self.longest.max(bytes);
            if self.lists.last() != Some(&true) {
                self.sum += bytes;
            }
        }
        let is_within = bytes <= LITERAL_BYTES_MAX
            && self.sum <= LITERALS_BYTES_MAX
            && self.longest.saturating_mul(self.calls) <= LITERAL_COPIES_BYTES_MAX;
        if is_within { Ok(()) } else { Err(EngineError::TooBig(Limit::Texts)) }
    }
}

fn bytes_of(token: &Token) -> usize {
    match token {
        Token::Number(text, _)
        | Token::SingleQuotedString(text)
        | Token::DoubleQuotedString(text)
        | Token::TripleSingleQuotedString(text)
        | Token::TripleDoubleQuotedString(text)
        | Token::SingleQuotedByteStringLiteral(text)
        | Token::DoubleQuotedByteStringLiteral(text)
        | Token::TripleSingleQuotedByteStringLiteral(text)
        | Token::TripleDoubleQuotedByteStringLiteral(text)
        | Token::SingleQuotedRawStringLiteral(text)
        | Token::DoubleQuotedRawStringLiteral(text)
        | Token::TripleSingleQuotedRawStringLiteral(text)
        | Token::TripleDoubleQuotedRawStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::EscapedStringLiteral(text)
        | Token::UnicodeStringLiteral(text)
        | Token::HexStringLiteral(text) => text.len(),
        Token::DollarQuotedString(text) => text.value.len(),
        // Operators and punctuation; a placeholder is refused by the planner.
        _ => 0,
    }
}

/// Refuses regular expressions that are no plain text, or too big once compiled.
pub(super) fn check_pattern(expr: &Expr) -> Result<(), EngineError> {
    match expr {
        Expr::Function(call) if call.name.to_string().to_ascii_lowercase().contains("regexp") => {
            let FunctionArguments::List(list) = &call.args else { return Ok(()) };
            match list.args.get(1) {
                Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))) => compiled(pattern),
                // Too few arguments: the planner's to refuse.
                None => Ok(()),
                Some(_) => Err(EngineError::Unsupported("named argument")),
            }
        }
        Expr::BinaryOp { op, right, .. } if is_match(op) => compiled(right),
        Expr::RLike { .. } | Expr::SimilarTo { .. } => Err(EngineError::Unsupported("pattern")),
        _ => Ok(()),
    }
}

fn is_match(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch
    )
}

fn compiled(pattern: &Expr) -> Result<(), EngineError> {
    let Expr::Value(value) = pattern else {
        return Err(EngineError::Unsupported("pattern that is no plain text"));
    };
    let Value::SingleQuotedString(text) = &value.value else {
        return Err(EngineError::Unsupported("pattern that is no plain text"));
    };
    match regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(_)) => Err(EngineError::TooBig(Limit::Texts)),
        Err(error) => Err(EngineError::Syntax(error.to_string())),
    }
}
