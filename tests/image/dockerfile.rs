//! A parser for the parts of a Dockerfile that the tests need.

/// A step of a stage that changes the files.
pub enum Step {
    /// `COPY from… to`, from the build context.
    Copy {
        /// Paths in the build context.
        from: Vec<String>,
        /// A path in the working directory.
        to: String,
    },
    /// `RUN`, without its flags.
    Run(String),
}

/// The instructions of a Dockerfile: the keyword and the rest of its line.
pub struct Dockerfile(Vec<(String, String)>);

impl Dockerfile {
    /// Reads the instructions. Joins continued lines and skips comments.
    pub fn parse(text: &str) -> Self {
        let mut instructions = Vec::new();
        let mut line = String::new();
        for part in text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            let continued = part.strip_suffix('\\');
            line.push_str(continued.unwrap_or(part));
            if continued.is_some() {
                continue;
            }
            if let Some((keyword, rest)) = line.trim().split_once(' ') {
                instructions.push((keyword.to_uppercase(), rest.trim().to_owned()));
            }
            line.clear();
        }
        Self(instructions)
    }

    /// Returns the rest of the last instruction with this keyword.
    pub fn last(&self, keyword: &str) -> Option<&str> {
        let mut found = self.0.iter().rev().filter(|(one, _)| one == keyword);
        found.next().map(|(_, rest)| rest.as_str())
    }

    /// Returns the steps of the first stage.
    pub fn first_stage(&self) -> Vec<Step> {
        let first = self.0.iter().position(|(keyword, _)| keyword == "FROM");
        let first = first.expect("a FROM") + 1;
        self.0[first..]
            .iter()
            .take_while(|(keyword, _)| keyword != "FROM")
            .filter_map(|(keyword, rest)| {
                let rest = without_flags(rest);
                match keyword.as_str() {
                    "COPY" => {
                        let mut from: Vec<String> =
                            rest.split_whitespace().map(ToOwned::to_owned).collect();
                        let to = from.pop().expect("a place to copy to");
                        Some(Step::Copy { from, to })
                    }
                    "RUN" => Some(Step::Run(rest.to_owned())),
                    _ => None,
                }
            })
            .collect()
    }
}

/// `--mount=… --mount=… command` -> `command`
fn without_flags(rest: &str) -> &str {
    let mut rest = rest.trim_start();
    while rest.starts_with("--") {
        rest = rest
            .split_once(' ')
            .map_or("", |(_, rest)| rest)
            .trim_start();
    }
    rest
}

/// Returns the commands of `program` in a shell line, split into words.
pub fn commands_of(line: &str, program: &str) -> Vec<Vec<String>> {
    line.split(';')
        .flat_map(|part| part.split("&&"))
        .map(|command| command.split_whitespace().map(ToOwned::to_owned).collect())
        .filter(|words: &Vec<String>| words.first().is_some_and(|first| first == program))
        .collect()
}
