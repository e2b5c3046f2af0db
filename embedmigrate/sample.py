"""The demo's data: invented résumés, generated from a seed, and the table that they live in."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from string import ascii_lowercase, digits
from typing import Any

SEARCHES = (
    ("someone who can look after patients at night", "Registered Nurse"),
    ("a person who can rewire an old house safely", "Electrician"),
)
"""A question, and the words that the `title` of a good answer holds."""

_PROFESSIONS = """
Registered Nurse | BSc Nursing | General Hospital, Hospice, Children's Clinic
wound care, medication rounds, triage, patient monitoring, night shifts, palliative care, handover
Looked after {n} patients a night on a surgical ward and called the doctor early when one worsened
Gave intravenous medication and kept charts of pulse, temperature and pain
Trained {n} newly qualified nurses in infection control and bedside manners
Comforted families and prepared patients for going home

Backend Engineer | BSc Computer Science | Software, Payments, Cloud Services
Python, PostgreSQL, REST APIs, message queues, Docker, Kubernetes, caching, code review, Go
Split a monolith into {n} services without an hour of downtime
Cut the slowest API endpoint from {n} seconds to 80 milliseconds with an index and a cache
Was on call for a cluster that answers {n} thousand requests a second
Wrote migrations, integration tests and the deployment pipeline

Data Scientist | MSc Statistics | Analytics, Insurance, Research Lab
machine learning, regression, Bayesian models, pandas, experiments, forecasting, visualisation
Built a churn model whose lift paid for the team {n} times over
Designed {n} A/B experiments and explained to product owners what the intervals mean
Cleaned a warehouse of sensor readings and found the seasonal pattern in it
Published dashboards of forecasts with honest error bars

Chef | Diploma in Culinary Arts | Bistro, Grand Hotel, Catering
menu design, sauces, pastry, butchery, seasonal cooking, kitchen hygiene, food cost, plating
Ran a kitchen brigade of {n} cooks through two sittings every evening
Wrote a new tasting menu every month from vegetables of nearby farms
Brought the cost of ingredients down by {n} percent without smaller plates
Baked the bread and made every stock, sauce and dessert in the house

Accountant | BA Accounting and Finance | Tax Advisers, Trading, Foundry
bookkeeping, tax returns, payroll, annual accounts, audit, invoicing, ledgers, VAT, budgeting
Closed the monthly books of {n} subsidiaries within three working days
Prepared tax returns and answered the auditor's questions on every ledger entry
Reconciled {n} bank accounts and recovered invoices that nobody had paid
Moved payroll and expenses from paper to a single ledger

Primary School Teacher | BEd Primary Education | Primary School, Academy, Village School
lesson planning, reading, arithmetic, classroom management, special needs, parents' evenings
Taught a class of {n} children to read, write and reckon
Planned lessons so that pupils of very different ability all had something to do
Led the school's music afternoon and {n} field trips to the woods
Spoke with parents about homework, friendships and exam marks

Lawyer | LLM Commercial Law | Chambers, Legal Partners, Law Clinic
contract law, litigation, negotiation, mergers, legal research, court pleading, compliance
Argued {n} cases before the court of appeal and settled most of the others
Drafted and negotiated supply contracts, leases and shareholder agreements
Advised clients on employment disputes, liability and data protection law
Reviewed {n} thousand documents in a merger and named the risky clauses

Electrician | Master Electrician's Certificate | Electrical, Building Services, Power
house wiring, fuse boxes, circuit testing, lighting, solar panels, safety inspection, fault finding
Rewired {n} old houses from the meter to the last socket
Found and repaired faults in switchboards, cables and earthing
Installed solar panels, inverters and charging points on {n} roofs and driveways
Tested every circuit and signed the safety certificate

Graphic Designer | BA Visual Communication | Design Studio, Publishing, Advertising
typography, logo design, illustration, page layout, colour, branding, poster design, packaging
Drew the logo, typeface and colours of {n} new brands
Laid out a magazine of {n} pages every month, from cover to captions
Illustrated posters, packaging and book jackets for print
Presented sketches to clients and turned their remarks into a better design

Logistics Planner | BSc Supply Chain Management | Freight, Warehousing, Shipping
route planning, warehousing, customs, freight, inventory, fleet scheduling, procurement, import
Planned the routes of {n} lorries a day and cut the empty kilometres
Kept stock in {n} warehouses low without letting a shelf run out
Cleared containers through customs and rebooked freight when ships were late
Negotiated rates with carriers and measured their punctuality

Pharmacist | Master of Pharmacy | Pharmacy, Dispensary, Pharmaceuticals
dispensing, drug interactions, prescriptions, compounding, pharmacology, vaccination, stock control
Checked {n} prescriptions a day for dose and dangerous drug interactions
Compounded ointments and capsules for customers with allergies
Advised customers at the counter on side effects and cheaper generics
Ran a vaccination day for {n} people each autumn

Journalist | MA Journalism | Gazette, Radio, Press Agency
interviewing, investigative reporting, editing, fact checking, headlines, broadcasting, columns
Reported from {n} elections and wrote the front page on the night
Investigated a housing scandal with {n} sources and won over a cautious editor
Interviewed ministers, witnesses and neighbours and checked every quotation
Edited the weekend supplement and its newsletter

Civil Engineer | MEng Civil Engineering | Bridges, Construction, Water Works
structural analysis, concrete, bridges, surveying, drainage, site supervision, soil mechanics, CAD
Designed a concrete bridge of {n} metres and supervised its construction
Calculated loads, foundations and retaining walls for roads and tunnels
Surveyed {n} sites and tested the soil before excavation
Renewed the drainage and sewers of an old town centre

Sales Manager | BA Business Administration | Trading, Machinery, Office Supplies
key accounts, negotiation, sales pipeline, CRM, quotas, trade fairs, pricing, coaching, prospecting
Led {n} sales representatives who beat their quota four quarters in a row
Won {n} key accounts at trade fairs and kept all but one
Set prices and discounts and forecast the revenue of each region
Coached the team in cold calling, demonstrations and closing deals

HR Manager | MA Human Resources | Retail, Textiles, Staffing
recruiting, onboarding, employee relations, performance reviews, job interviews, staff training
Recruited {n} employees in a year and shortened the time to hire
Introduced performance reviews, mentoring and a fair pay scale
Mediated conflicts between employees, managers and the works council
Wrote the handbook on leave, remote work and conduct for {n} employees
"""

_FIRST = [
    *("Anna", "Bilal", "Chiara", "Dmitri", "Esra", "Femi", "Greta", "Hugo", "Ines", "Jonas"),
    *("Kavya", "Linh", "Mateo", "Noor", "Oskar", "Priya", "Rafael", "Sofia", "Tomasz", "Yuki"),
]
_LAST = [
    *("Ambervale", "Birchenough", "Coldmarsh", "Dunfeather", "Elmstride", "Fernhollow"),
    *("Gildersand", "Harrowby", "Ironmeadow", "Larkwhistle", "Mosskeep", "Quillbrook"),
]
_PLACES = [
    *("Aldermoor", "Brackenford", "Cawthorpe Bay", "Dellingham", "Eastermouth", "Fallowmere"),
    *("Granby Cross", "Hollinwick", "Larkhaven", "Marrowdale", "Northwell", "Ostrey"),
]
_LANGUAGES = ("English", "Spanish", "German", "Hindi", "Arabic", "Polish", "Turkish", "Vietnamese")
_RANKS = ("", "", "Junior ", "Senior ", "Lead ")
_THIS_YEAR = 2026


@dataclass(frozen=True, slots=True)
class Resume:
    """A row of `base_resumes`; both ids have the shape of a cuid."""

    id: str
    user_id: str
    data: dict[str, Any]


def resumes(count: int, seed: int = 7) -> Iterator[Resume]:
    """The first `count` of an endless series, which is the same on every run of one seed."""
    random = Random(seed)  # noqa: S311  made up, not kept secret
    professions = _PROFESSIONS.strip().split("\n\n")
    for _ in range(count):
        document = _document(random, *random.choice(professions).split("\n"))
        yield Resume(_cuid(random), _cuid(random), document)


def table_sql(dimensions: int) -> str:
    """The table as Prisma lays it out and the trigger that stamps a new vector; several statements.

    The extension `vector` has to be there already.
    """
    return f"""
CREATE TABLE base_resumes (
    id text PRIMARY KEY,
    "userId" text NOT NULL,
    data jsonb NOT NULL,
    embedding vector({int(dimensions)}),
    embedding_updated_at timestamp(3),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3)
);
CREATE FUNCTION stamp_resume_embedding() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.embedding IS DISTINCT FROM OLD.embedding THEN
        NEW.embedding_updated_at = now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER stamp_resume_embedding BEFORE UPDATE OF embedding ON base_resumes
    FOR EACH ROW EXECUTE FUNCTION stamp_resume_embedding();
"""


def _cuid(random: Random) -> str:
    return "c" + "".join(random.choices(ascii_lowercase + digits, k=24))


def _document(random: Random, head: str, skills: str, *highlights: str) -> dict[str, Any]:
    profession, degree, workplaces = head.split(" | ")
    title = random.choice(_RANKS) + profession
    name = f"{random.choice(_FIRST)} {random.choice(_LAST)}"
    known = random.sample(skills.split(", "), k=6)
    since = random.randint(1998, 2020)
    changes = random.sample(range(since + 1, _THIS_YEAR), k=random.randint(1, 4))
    years = sorted([since, *changes, _THIS_YEAR], reverse=True)
    return {
        "personalInfo": {
            "name": name,
            "email": f"{name.replace(' ', '.').lower()}{random.randint(1, 999)}@example.com",
            "location": random.choice(_PLACES),
        },
        "title": title,
        "summary": f"{title} with {_THIS_YEAR - since} years of work in {', '.join(known[:3])}. "
        f"{_some(random, highlights, 1)[0]}.",
        "skills": known,
        "experience": [
            {
                "company": f"{random.choice(_PLACES)} {random.choice(workplaces.split(', '))}",
                "role": title if end == _THIS_YEAR else profession,
                "period": f"{start} - {'present' if end == _THIS_YEAR else end}",
                "highlights": _some(random, highlights, random.randint(2, 4)),
            }
            for end, start in pairwise(years)
        ],
        "education": [{"degree": degree, "school": f"{random.choice(_PLACES)} College"}],
        "languages": random.sample(_LANGUAGES, k=random.randint(1, 3)),
    }


def _some(random: Random, highlights: tuple[str, ...], count: int) -> list[str]:
    chosen = random.sample(highlights, k=count)
    return [text.replace("{n}", str(random.randint(3, 60))) for text in chosen]
